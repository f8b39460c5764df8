"""The runtime type checker that the tests' import hook puts on every function of erflab."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as for type checkers, an int passes for a float
