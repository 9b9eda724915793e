"""What the host does with a lab that is up: `verify` judges it, each story shows one thing that happens to it.

On Python's standard library alone (and PyYAML where it is there), for whoever runs `vagrant up` has no environment of
this project. `topology` and `table` are pure. Guests are reached by ssh and nothing else, see `guests`.
"""
