"""What is deployed: a model on a machine, number formats, degrees of parallelism, a memory policy. Every question is about one."""

from roofline.deployment.deployment import Deployment
from roofline.deployment.machine import machine

__all__ = ["Deployment", "machine"]
