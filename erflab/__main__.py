"""`python -m erflab`."""

from erflab.cli import main

main()
