"""Any method that mergekit registers, run by mergekit itself: `mergekit:ties`, `mergekit:slerp`, ...

mergekit (arXiv:2403.13257; github.com/arcee-ai/mergekit, version 0.1.5) in a process of its own, in float32
with one cast to the base's dtype at the end. Parameters are mergekit's, with its defaults, save that its
`lambda` is called `scale`, `density` must be given (mergekit takes 1 in silence, which drops nothing),
`weight` is 1 where it is not given, and parameters that a method never looks at are unknown (`density` of
`task_arithmetic`).

`models` chooses the roles that take part. Methods between two models (slerp, nearswap, arcee_fusion) go from
its first to its second, by default from the first expert to the second, or from the base to the only one.
Methods with an optional base (nuslerp, multislerp) have it unless `use_base` is false. A number may be a list
over depth (mergekit's gradient: its first entry also holds for embeddings, final norm and head) or a list of
`{filter: NAME, value: ...}` over tensor names; what mergekit has per model may be given by role.
"""

import functools

from harness import bridge, merge_method


class Bridge:
    """What all variants share; `definition` and the parameters come with the variant."""

    def __post_init__(self):
        bridge.check(self, self.definition)

    def needs(self, roles):
        bridge.check_roles(self, self.definition, roles)
        return ()

    def degenerate(self, roles):
        return bridge.degenerate(self, self.definition, roles)

    def build(self, context):
        return bridge.build(self, self.definition, context)


def variants():
    return bridge.names()


def variant(name):
    return _made(bridge.definition(name))


@functools.cache
def _made(found):
    fields = bridge.fields(found)
    body = {"__module__": __name__, "__annotations__": {key: hint for key, (hint, _) in fields.items()}}
    body |= {key: default for key, (_, default) in fields.items()}
    made = merge_method(
        found.label,
        title=f"{found.title} (mergekit)",
        paper=found.url.replace("https://arxiv.org/abs/", "arXiv:"),
        draws=lambda m: found.name.startswith(("dare", "della")),
    )(type("Variant", (Bridge,), body))
    made.definition = found
    return made
