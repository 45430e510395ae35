"""The partner face: the API Mesures de santé of Mon espace santé, in its own shapes, through the same exchange as all else."""
