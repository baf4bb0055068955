"""Parts of the method that training can leave out, to see what each is worth."""

PARTS = {
    "bank": "the prior keypoints are regressed, not mixed from templates",
    "residual": "nothing corrects the prior keypoints",
    "prior-loss": "the loss is on the last keypoints alone",
    "weights": "every sample and attribute weighs the same, however rare",
    "moves": "no random turn, shift, zoom and mirroring of samples",
    "correction": "stage 1 has no correction network",
}
