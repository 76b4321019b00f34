"""`python -m perdure.cli`, where the command `perdure` is not on the path."""

from perdure.cli.root import main

main()
