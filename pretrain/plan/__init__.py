"""What a run will need: on any number of workers, and on accelerators of a kind."""

from pretrain.plan.cluster import ClusterPlan, plan_cluster
from pretrain.plan.memory import WorkerMemory
from pretrain.plan.run import Placement, Plan, plan

__all__ = ["ClusterPlan", "Placement", "Plan", "WorkerMemory", "plan", "plan_cluster"]
