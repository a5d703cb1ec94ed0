"""A model cut where its frozen part ends: the prefix is one function of the image, the suffix is what is trained."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from timm.models import get_notrace_functions
from torch import Tensor, fx, nn

from spine_ray.core.freeze import is_batch_norm

_UNTRACEABLE = (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError)
"""What a model's forward may raise when it is given symbols instead of tensors."""
_DOES_NOTHING = (nn.Identity, nn.Dropout)
"""Beside the classifier in a suffix that is one matrix; dropout has no rate here."""


class CannotSplitError(ValueError):
    """The model has to run whole."""


@dataclass(frozen=True, slots=True)
class Split:
    """Both parts share their modules with the model they were cut from."""

    prefix: fx.GraphModule
    suffix: fx.GraphModule
    cut: str
    """Which value passes from one to the other."""

    @property
    def matrix(self) -> nn.Linear | None:
        """The one linear layer that the suffix is, or None where it is more."""
        nodes = [node for node in self.suffix.graph.nodes if node.op not in ("placeholder", "output")]
        if any(node.op != "call_module" for node in nodes):
            return None
        modules = [self.suffix.get_submodule(node.target) for node in nodes]
        layers = [module for module in modules if not isinstance(module, _DOES_NOTHING)]
        return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None


def split_model(model: nn.Module) -> Split:
    """Cut a model at the last value that everything trained depends on and that depends on nothing trained.

    Only the trunk is traced: modules that are wholly frozen or wholly trained stay as they are, so what they do in
    training mode (drop-path, batch-norm) they do in the suffix too.

    Raises:
        CannotSplitError: If the model cannot be traced, or several values pass from the frozen to the trained part.
    """
    training = model.training
    model.eval()
    try:
        graph = _Trunk(model).trace(model)
    except _UNTRACEABLE as error:
        raise CannotSplitError(f"it cannot be traced ({type(error).__name__})") from error
    finally:
        model.train(training)
    nodes = list(graph.nodes)
    frozen = _frozen_nodes(model, nodes)
    images = nodes[0]  # further arguments have defaults
    for cut in reversed(nodes):
        if cut not in frozen or cut.op in ("placeholder", "get_attr"):
            continue
        behind = _ancestors(nodes[-1], stop=cut)
        if images not in behind:
            prefix = _part(model, nodes, {*_ancestors(cut), cut}, result=cut)
            return Split(prefix, _part(model, nodes, behind, given=cut), cut.name)
    raise CannotSplitError("more than one value passes from its frozen to its trained part")


def check_split(model: nn.Module, split: Split, images: Tensor) -> None:
    """Compare both parts with the model on a batch, in eval mode.

    Raises:
        CannotSplitError: If a single bit differs.
    """
    model.eval()
    with torch.no_grad():
        if not torch.equal(split.suffix(split.prefix(images)), model(images)):
            raise CannotSplitError("its parts say something else than the whole")


class _Trunk(fx.Tracer):
    """Looks into modules that hold frozen and trained parameters, and into those around the classifier."""

    def __init__(self, model: nn.Module) -> None:
        functions = tuple(get_notrace_functions())  # type: ignore[no-untyped-call]
        super().__init__(autowrap_functions=functions)
        classifier = model.get_classifier()  # type: ignore[operator]
        heads = classifier if isinstance(classifier, tuple) else (classifier,)
        self._around = {
            name
            for name, module in model.named_modules()
            if module not in heads and any(each in heads for each in module.modules())
        }

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self._around:
            return False
        # A frozen batch-norm within a trained block needs no look into the block: what it depends on is trained.
        others = (module for module in m.modules() if not is_batch_norm(module))
        return len({each.requires_grad for module in others for each in module.parameters(recurse=False)}) < 2


def _frozen_nodes(model: nn.Module, nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on nothing trained."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen: set[fx.Node] = set()
    for node in nodes:
        own = {node.target} & trained if node.op == "get_attr" else set()
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            own = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        if node.op != "output" and not own and all(each in frozen for each in node.all_input_nodes):
            frozen.add(node)
    return frozen


def _ancestors(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """Return everything a node depends on, and itself, but not `stop` nor what only `stop` depends on."""
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each is not stop and each not in found:
            found.add(each)
            waiting += each.all_input_nodes
    return found


def _part(
    model: nn.Module,
    nodes: Iterable[fx.Node],
    keep: Collection[fx.Node],
    *,
    given: fx.Node | None = None,
    result: fx.Node | None = None,
) -> fx.GraphModule:
    """Return the kept nodes as a module that shares the model's modules and parameters."""
    graph, copies = fx.Graph(), {}
    if given is not None:
        copies[given] = graph.placeholder("activations")
    for node in nodes:
        if node in keep:
            copies[node] = graph.node_copy(node, lambda each: copies[each])
    if result is not None:
        graph.output(copies[result])
    return fx.GraphModule(model, graph)
