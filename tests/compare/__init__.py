"""lvsctl beside the usual alternatives, in the same stories with the same traffic: `make compare`.

`stories` is what happens, `balancers` who balances, `updater` the small program that two of them have, `__main__` runs
all of it in the lab and prints the table of docs/comparison.md.
"""
