"""`python -m catdog_edge` is `catdog-edge`."""

from catdog_edge.cli.main import main

main()
