#!/usr/bin/python3.11 -IS
"""The image's /init: has Python import from the one file there is, and begins init.py."""

import sys

from modules import PLACE, Modules

# After what is a part of Python itself, before directories.
sys.meta_path.insert(2, Modules(PLACE))

from init import main  # noqa: E402 - only now is it found

main()
