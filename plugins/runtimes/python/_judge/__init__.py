"""Judges a program by tests that never share an interpreter with it.

`tests` runs the tests in one sandbox, with stand-ins for the names of the program; each use of a stand-in is an operation.
`program` runs the program and the operations in another sandbox, and says what each gave. Then the tests are run again with
those results. What the program gives is data, `values` says how it is written, and it is compared where the program is not.
"""
