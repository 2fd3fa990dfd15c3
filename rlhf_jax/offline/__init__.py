"""Rewards learnt offline, from preferences between whole trajectories, and what else can be done with these.

trajectories           whole episodes of a fixed set of policies, pairs of them, and which one is preferred
trajectory_reward      a reward network fitted to such preferences
policy_gradient        reward-to-go policy gradient on any reward
agent                  acts and learns by the policy gradient, or by PPO
behavioural_cloning    a policy that does what the trajectories do
inverse_rl             a reward that explains the trajectories, and a policy for it

Axes, beside those of `rlhf_jax`:

    n  trajectories
    T  steps of the longest possible trajectory, or of a rollout
    P  pairs of trajectories
"""
