"""`python -m ncdemo` is `ncdemo`."""

from ncdemo.cli import main

main()
