"""The commands of `entitymill`: each module has the parser of one command, and `main`, which returns its exit code.

`main(None)` reads the options of this process. All commands use the module `common`; `benchmark_child` and `tagging_child`
run in child processes.
"""
