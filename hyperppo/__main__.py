"""`python -m hyperppo`, and `torchrun ... -m hyperppo`."""

from hyperppo.cli import main

main()
