"""What all strategies share: data plan, loop, evaluation, attention."""
