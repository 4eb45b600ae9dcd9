"""scalesearch from a checkout: python cli.py COMMAND ...

A tour:

  python cli.py scale --base b0                          describe a network
  python cli.py plan --base b0 --budget 2x               list the candidates of a search, their cost and proxies
  python cli.py run --base b0 --budget 2x                search, rank, and emit the scaled family
  python cli.py status runs/...                          how far a run is
  python cli.py rank runs/...                            the ranking of its trials so far
  python cli.py report runs/... --open                   the run as a page that opens offline
  python cli.py repair runs/...                          bring a study that is damaged or behind to the journal
  python cli.py emit runs/... --weights                  write the family again, with weights
  python cli.py emit --base b0 --published               write the paper's B0-B7
"""

from scalesearch.cli import main

if __name__ == "__main__":
    main()
