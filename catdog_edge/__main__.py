"""`python -m catdog_edge` is `catdog-edge`."""

from catdog_edge.cli import main

main()
