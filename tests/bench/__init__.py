"""`make bench`: how long the work of a director takes, here and with its peers, in one boot of one kernel.

`__main__` runs it: `inside` measures in the lab's kernel, `emulated` in a real distribution kernel under qemu, `table`
prints. `shapes` says what is in the tables, `works` what is measured, `peers` against whom, `result` what came out.
What each line means is told in docs/benchmarks.md.
"""
