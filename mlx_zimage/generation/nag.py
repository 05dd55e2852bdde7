"""`nag`: negative prompts without guidance, by what they do inside each attention."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..models.layers.nag import AttentionGuidance
from ..request import Request
from .run import Context, Run, guides


class NagFeature:
    """`nag` with a scale above 1. It stands in for guidance, so that only one of them acts."""

    def fill(self, request: Request, context: Context) -> Mapping[str, Any]:
        if request.nag is None or request.nag.scale == 1:
            return {}
        if request.guidance:
            raise RequestError(
                f"nag works without guidance, not with {request.guidance:g}; leave one of them out"
            )
        return {"guidance": 0.0, "negative_prompt": ""}

    def plan(self, run: Run, context: Context) -> Run:
        nag = run.request.nag
        if nag is None or not guides(run.request):
            return run
        guidance = AttentionGuidance(nag.scale, nag.tau, nag.alpha)
        workload = replace(run.workload, guides_attention=True)
        return replace(run, attention_guidance=guidance, workload=workload)
