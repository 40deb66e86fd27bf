"""Where a stack's jobs run: its config says on what, its outputs say which.

of_stack("aks-dev").jobs()
"""

import click

from ncdemo.cli.stack import stack_file
from ncdemo.operate.job import Place
from ncdemo.operate.outputs import output, outputs
from ncdemo.spec.stack_file import load_stack


def of_stack(name: str) -> Place:
    """Return the place of a stack's jobs. Raise SpecError when it doesn't exist yet."""
    path = stack_file(name)
    stack = load_stack(path)
    shown, listing = f"on stack {name}", f"ncdemo jobs ls --stack {name}"
    from ncdemo.operate.cluster import Cluster
    from ncdemo.operate.kube import Kube

    if stack.spec.target == "kubernetes":
        cluster = stack.spec.kubernetes
        return Cluster(Kube.connect(cluster.context, cluster.kubeconfig, "kubectl config get-contexts"), stack.namespaces, shown, listing)
    if stack.spec.target == "vm":
        from ncdemo.operate.arm import Arm
        from ncdemo.operate.blobs import Blobs
        from ncdemo.operate.machines import Machines

        found = outputs(path, "see the results with: ncdemo results ls --account NAME")
        open_until_end = click.get_current_context().with_resource
        blobs = open_until_end(Blobs(output(found, "storage_account", path), output(found, "results", path)))
        return Machines(
            open_until_end(Arm.connect()), output(found, "resource_group", path), output(found, "vms", path), blobs, shown, listing
        )
    found = outputs(path, "name the cluster with --context")
    context, login = output(found, "cluster", path), output(found, "connect", path)
    return Cluster(Kube.connect(context, None, login), stack.namespaces, shown, listing)
