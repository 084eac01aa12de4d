"""The words that the lesson teaches, each with the chapter that explains it: none is used before."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TERMS", "Term"]


@dataclass(frozen=True)
class Term:
    """A word, the chapter where it is explained, and what it means in one sentence."""

    word: str
    chapter: str
    meaning: str


TERMS = (
    Term("derivative", "slopes", "the slope of a function at one point"),
    Term(
        "chain rule",
        "slopes",
        "the slope of functions in a row is the product of their slopes, each taken where it is",
    ),
    Term("stage", "slopes", "one function of a chain of functions"),
    Term("node", "paths", "a value in the graph"),
    Term(
        "graph",
        "paths",
        "a picture of a computation: a node for each value, an arrow from each value to what is made of it",
    ),
    Term("path", "paths", "a way along the arrows of the graph, from an input to an output"),
    Term("partial derivative", "paths", "the slope with respect to one input while the others are held still"),
    Term("Jacobian", "paths", "the table of all partial derivatives: a row for each output, a column for each input"),
    Term("tangent", "directions", "how fast a value changes when the inputs move in a chosen way"),
    Term("sweep", "directions", "one walk through the whole graph, forward with tangents or back with cotangents"),
    Term("cotangent", "directions", "how fast the output changes when this value is changed"),
    Term("network", "directions", "a function with very many numbers in it that can be adjusted"),
    Term("train", "directions", "to adjust a network's numbers until its answers are good"),
    Term("layer", "weights", "the stage y = W x + b, with numbers W and b that are learnt"),
    Term("weight", "weights", "an entry of W: how strongly one input of a layer counts for one output"),
    Term("bias", "weights", "an entry of b: what is added to an output whatever the inputs are"),
    Term("loss", "weights", "one number that says how wrong the output is"),
    Term("gradient", "weights", "all partial derivatives of the loss with respect to the weights and biases"),
    Term(
        "hidden layer", "layers", "a layer whose output is neither given nor the answer: nobody says what it should be"
    ),
    Term("activation", "layers", "a bent function that follows a layer, applied to each number on its own"),
    Term("ReLU", "layers", "the activation that keeps positive numbers and replaces negative ones by 0"),
    Term("norm", "layers", "the length of a list of numbers: the root of the sum of their squares"),
    Term(
        "backpropagation", "layers", "the reverse sweep through a network, with the gradients of its weights on the way"
    ),
    Term("sigmoid", "activations", "the activation 1/(1 + exp(−h)), between 0 and 1"),
    Term("tanh", "activations", "the activation that bends to −1 and 1"),
    Term("vanishing gradient", "activations", "a cotangent so small in the early layers that they do not learn"),
    Term("gradient descent", "descent", "change every weight a little against its partial derivative, and again"),
    Term("learning rate", "descent", "how far a step goes for each unit of gradient"),
    Term("momentum", "descent", "a step that keeps part of the step before"),
    Term("Adam", "descent", "steps that are scaled for each weight by how large its gradients have been"),
    Term("multiply-add", "order", "one multiplication and one addition: the unit in which matrix products are counted"),
    Term("forward mode", "order", "multiplying Jacobians from the input on: a column, or tangent, for each input"),
    Term("reverse mode", "order", "multiplying Jacobians from the output back: a row, or cotangent, for each output"),
)
