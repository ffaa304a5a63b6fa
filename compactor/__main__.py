"""`python -m compactor` is the command `compactor`."""

from compactor.ui.cli import main

main()
