"""Image networks in eight bits: quantisation-aware training by torchao (its PT2E flow), and the graph that it leaves.

The network is exported as a graph of operations, in which torchao folds batch normalisation into convolutions and puts
a rounding to eight bits between them: activations with one scale a tensor, weights with one a channel, as x86's
integer instructions want them. Training goes on with these roundings in place (Jacob et al. 2018) and its gradients
pass through them as if they were not there.

Two things are other than torchao's x86 quantiser has them, for onnxruntime's sake:

- It is made for torch's own compiler, whose convolution adds the residual before it rounds, so it puts no rounding
  between the two. onnxruntime has no such operation and would compute these convolutions in float32, with a change of
  type and of layout on either side. Here sums are rounded as operations of their own: each is one QLinearAdd.
- Weights are whole numbers from -64 to 63. Processors without VNNI instructions add products of activations and
  weights in pairs, in 16 bits, which overflow silently with larger ones: 2 * 255 * 64 is the largest sum that fits.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, fx

from nlml_hpe.extras import needs
from nlml_hpe.image_networks.network import ImageNetwork, Posterior

_LARGEST_BATCH = 65_536
_EXAMPLES = 2
WEIGHTS = (-64, 63)
"""The whole numbers that weights are rounded to."""
_SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_RECTIFIERS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
_TRAINED = {torch.ops.aten.dropout.default: 2, torch.ops.aten.batch_norm.default: 5}
"""Operations that are others in training, and the place of the argument that says so."""


class FakeQuantized(ImageNetwork):
    """An image network that rounds as eight bits would, and is trained like any other.

    Parameters
    ----------
    network : ImageNetwork
        A trained one, on the CPU; it stays as it is.
    crops : Tensor (N, 3, size, size)
        Some crops, RGB in 0..255, by which the first ranges of the activations are found.
    seed : int
        Of the dropout under which they are found; torch's own generator is left as it was.

    Raises
    ------
    MissingPackageError
        Where torchao is not installed.
    """

    def __init__(self, network: ImageNetwork, crops: Tensor, seed: int = 0) -> None:
        super().__init__()
        self.size, self.covered = network.size, network.covered
        # Not a module of this one: its weights are in the graph.
        self._own = [network]
        with torch.random.fork_rng(devices=[]):
            self.graph = prepared(copy.deepcopy(network))
            torch.manual_seed(seed)
            self.train()
            with torch.no_grad():
                self.graph(crops)

    @property
    def own(self) -> ImageNetwork:
        """The network that it was made of, whose outputs its own are like."""
        return self._own[0]

    def train(self, mode: bool = True) -> Self:
        """Training mode, in which alone the ranges of weights and activations follow what is seen, or evaluation mode.

        Torchao's own change of mode puts other operations in the place of these: dropout of a half whatever the
        network has, and it draws from torch's generator, so that a training gone on with would be another one.
        """
        with needs("quantize", "quantisation"):
            from torchao.quantization.pt2e.fake_quantize import FakeQuantizeBase

        self.training = mode
        for node in self.graph.graph.nodes:
            if node.target in _TRAINED:
                node.update_arg(_TRAINED[node.target], mode)
        self.graph.recompile()
        for module in self.graph.modules():
            if isinstance(module, FakeQuantizeBase):
                module.enable_observer(mode)
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """Outputs as the network's own, of rounded weights and activations."""
        outputs: Tensor = self.graph(crops)
        return outputs.float()

    def posterior(self, outputs: Tensor) -> Posterior:
        """As the network's own."""
        return self.own.posterior(outputs)

    def losses(self, outputs: Tensor, rotations: Tensor) -> Tensor:
        """As the network's own."""
        return self.own.losses(outputs, rotations)

    def trainable(self, rotations: Tensor) -> Tensor:
        """As the network's own."""
        return self.own.trainable(rotations)

    def converted(self) -> fx.GraphModule:
        """The graph with weights in eight bits, which ``model.onnx_layers`` translates to QuantizeLinear nodes."""
        with needs("quantize", "quantisation"):
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        self.eval()
        graph: fx.GraphModule = convert_pt2e(copy.deepcopy(self.graph))
        return graph


def prepared(network: ImageNetwork) -> fx.GraphModule:
    """The network as a graph with roundings, as it is in training; torch's own generator is drawn from."""
    with needs("quantize", "quantisation"):
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    example = torch.zeros(_EXAMPLES, 3, network.size, network.size)
    faces = torch.export.Dim("faces", min=1, max=_LARGEST_BATCH)
    exported = torch.export.export(network.train(), (example,), dynamic_shapes={"crops": {0: faces}})
    settings: Any = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    low, high = WEIGHTS
    quantizer: Any = x86.X86InductorQuantizer()
    quantizer.set_global(replace(settings, weight=replace(settings.weight, quant_min=low, quant_max=high)))
    operations = exported.module()
    # Before the quantiser, which leaves alone what is marked.
    _round_sums(operations, settings.output_activation)
    graph: fx.GraphModule = prepare_qat_pt2e(operations, quantizer)
    return graph


def _round_sums(exported: fx.GraphModule, spec: Any) -> None:
    """Mark the residual sums of an exported graph to be rounded by ``spec``: what they add and what comes out of them.

    A rectifier behind a sum needs no rounding before it: what comes out is its output.
    """
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in exported.graph.nodes:
        inputs = node.all_input_nodes
        if node.target not in _SUMS or len(inputs) != 2:
            continue
        marks = dict.fromkeys(inputs, spec)
        rectifiers = [user for user in node.users if user.target in _RECTIFIERS]
        own = None if rectifiers else spec
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=marks, output_qspec=own, _annotated=True)
        for user in rectifiers:
            user.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(output_qspec=spec, _annotated=True)
