"""From result tables to tables, figures and verdicts. Nothing here trains, samples or opens a stage."""
