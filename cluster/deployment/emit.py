"""The one entrance: a form and a request in, the text of the file out."""

from cluster.deployment import kuberay, ray_cluster, slurm
from cluster.deployment.request import DeploymentRequest, Form, check
from data_pipeline.config import BadInput
from data_pipeline.redaction import redact

WRITERS = {"slurm": slurm.script, "kuberay": kuberay.manifest, "ray-cluster": ray_cluster.config}


def emit(form: Form, request: DeploymentRequest) -> str:
    """The deployment file of this form; BadInput where an option does not fit it, or where it would hold a secret."""
    check(request, form)
    text = WRITERS[form](request)
    for number, (line, shown) in enumerate(zip(text.splitlines(), redact(text).splitlines(), strict=False), 1):
        if line != shown:
            raise BadInput(
                f"--emit {form}: line {number} of the file would hold a secret: {shown.strip()}; keep it in a file "
                "of the nodes"
            )
    return text
