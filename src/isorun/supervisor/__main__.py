"""`python -I -m isorun.supervisor <control fd>`: started by `client`, never by hand."""

from isorun.supervisor.process import main

main()
