"""What is asked and what counts as an answer: questions, splits, prompts, extraction. No model, no sampling."""
