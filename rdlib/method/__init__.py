"""The method, in the order of the paper.

    section 3.1   teacher, voting           responses at ten temperatures, majority vote, Q_fail, propagation
    Eq. 1-2       sft                       warm-up on the teacher's agreeing responses
    Eq. 3         student                   samples of the warmed-up student
    Eq. 4-6       reward_model              classification and preference losses, lambda, AUCs
    Eq. 7         reward                    the reward model's score, corrected by the pseudo-label
    Eq. 8         ppo_core, ppo, rl         losses and advantages; the trainer; the stage around it
    section 4     evaluate, agreement, metrics, judged
    own questions held_out                  the teacher's vote on test questions that have no gold answer
    reviewers     baselines                 rejection sampling, DPO, on-policy distillation, GRPO

`training` and `trainers` are what the training stages share; `ppo_schedule` and `ppo_checkpoints` belong to `ppo`.
"""
