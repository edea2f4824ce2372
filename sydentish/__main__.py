"""`python -m sydentish`."""

from sydentish.cli import main

main(prog_name="sydentish")
