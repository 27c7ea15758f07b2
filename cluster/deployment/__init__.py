"""Deployment files for clusters that Segue does not start itself: written to be read, and then submitted by hand."""

from cluster.deployment.emit import emit
from cluster.deployment.request import FORMS, DeploymentRequest, Form

__all__ = ["FORMS", "DeploymentRequest", "Form", "emit"]
