"""The capacity and the jobs of a stack, as Pulumi components: one per file, wired in program.py.

deploy(stack, today=datetime.date.today())     # inside a Pulumi program
render(stack).resources                         # the same, with no cloud and no Pulumi CLI
"""
