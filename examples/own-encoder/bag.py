"""Another architecture than PinFM: a decayed bag of items, as the three graphs of a bundle.

A slot holds its event's token, in int8: the first half where PinFM has a key, the second where it has a value. The user
embedding is the sum of all slots, each event worth `DECAY` of the one after it, at unit length. A candidate is scored by its
cosine with it. No layer, no position: but slots depend on their own event alone, and what is summed is what the slots hold,
not the tokens that they were made of. So appending to a state gives what encoding it anew gives, which is all that the rest
relies on.

Letters: B users, T new tokens, P past slots, U and C users and candidates of a request, d model width.
"""

from __future__ import annotations

import onnx
import onnx.parser

from encoder.graph_attention import GRID, SCALE_HEADROOM
from schemas.bundle import ModelShape
from schemas.scales import MAX_SCALE, MIN_SCALE

DECAY = 0.9
SHARPNESS = 8.0

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>'

#: Tokens (B, T, d) -> the outputs kv and scales, and `seen` (B, T, d): what the slots hold.
_SLOTS = """
    halves = Reshape(tokens, halves_shape)
    largest = ReduceMax<keepdims = 1>(halves, last_axis)
    smallest = ReduceMin<keepdims = 1>(halves, last_axis)
    negated = Neg(smallest)
    extent = Max(largest, negated)
    wanted = Mul(extent, per_step)
    clipped = Clip(wanted, min_scale, max_scale)
    far = Mul(clipped, grid)
    near = Add(clipped, far)
    scale = Sub(near, far)
    stretched = Div(halves, scale)
    rounded = Round(stretched)
    code = Clip(rounded, min_code, max_code)
    code_int8 = Cast<to = 3>(code)
    kv = Reshape(code_int8, kv_shape)
    scale_f16 = Cast<to = 10>(scale)
    scales = Reshape(scale_f16, scales_shape)
    held = Mul(code, scale)
    seen = Reshape(held, whole_shape)
"""

#: `past` (B, P, d) of the inputs past_kv and past_scales, and `past_steps` (P,).
_PAST = """
    past_flat = Reshape(past_kv, halves_shape)
    past_code = Cast<to = 1>(past_flat)
    past_scales_flat = Reshape(past_scales, scale_columns_shape)
    past_scale = Cast<to = 1>(past_scales_flat)
    past_held = Mul(past_code, past_scale)
    past = Reshape(past_held, whole_shape)
    past_count = Shape<start = 1, end = 2>(past_kv)
    past_count_scalar = Squeeze(past_count)
    past_steps = Range(zero, past_count_scalar, one)
    past_rows = Unsqueeze(past_length, column_axis)
    is_past = Less(past_steps, past_rows)
"""


def _weighted(name: str, newest: str, steps: str, slots: str, is_real: str) -> str:
    """`name` (B, d): the sum of `slots` by age, which counts back from position `newest` (B, 1)."""
    return f"""
    {name}_age_all = Sub({newest}, {steps})
    {name}_age = Max({name}_age_all, zero)
    {name}_age_real = Cast<to = 1>({name}_age)
    {name}_decayed = Pow(decay, {name}_age_real)
    {name}_weight = Where({is_real}, {name}_decayed, nothing)
    {name}_rows = Unsqueeze({name}_weight, column_axis)
    {name}_product = MatMul({name}_rows, {slots})
    {name} = Squeeze({name}_product, column_axis)
"""


def _unit(name: str, of: str) -> str:
    return f"""
    {name}_length = ReduceL2<keepdims = 1>({of}, last_axis)
    {name}_divisor = Max({name}_length, tiny)
    {name} = Div({of}, {name}_divisor)
"""


_NEW = """
    count = Shape<start = 1, end = 2>(tokens)
    count_scalar = Squeeze(count)
    steps = Range(zero, count_scalar, one)
    last_rows = Unsqueeze(last, column_axis)
    is_new = LessOrEqual(steps, last_rows)
"""


def graphs(shape: ModelShape) -> dict[str, bytes]:
    """encode, append and cross for `shape`, which must be `bag_shape`'s."""
    d, half = shape.d_model, shape.head_dim
    slot, past_inputs = (
        "2, 1, 1",
        f"int8[B, P, 2, 1, 1, {half}] past_kv, float16[B, P, 2, 1, 1] past_scales, int64[B] past_length",
    )
    outputs = f"int8[B, T, {slot}, {half}] kv, float16[B, T, {slot}] scales, float[B, {d}] embedding"
    constants = f"""<
        int64[4] halves_shape = {{0, 0, 2, {half}}}, int64[6] kv_shape = {{0, 0, {slot}, {half}}},
        int64[5] scales_shape = {{0, 0, {slot}}}, int64[4] scale_columns_shape = {{0, 0, 2, 1}},
        int64[3] whole_shape = {{0, 0, {d}}}, int64[1] last_axis = {{-1}}, int64[1] column_axis = {{1}},
        int64 zero = {{0}}, int64 one = {{1}}, float decay = {{{DECAY}}}, float nothing = {{0.0}}, float tiny = {{1e-6}},
        float per_step = {{{SCALE_HEADROOM / 127}}}, float min_scale = {{{MIN_SCALE}}}, float max_scale = {{{MAX_SCALE}}},
        float grid = {{{GRID}}}, float min_code = {{-127.0}}, float max_code = {{127.0}}, float sharpness = {{{SHARPNESS}}}
    >"""
    encode = f"""{_HEAD} encode (float[B, T, {d}] tokens, int64[B] last) => ({outputs}) {constants} {{
        {_SLOTS} {_NEW} {_weighted("bag", "last_rows", "steps", "seen", "is_new")} {_unit("embedding", "bag")}
    }}"""
    append = f"""{_HEAD} append (float[B, T, {d}] tokens, {past_inputs}, int64[B] last) => ({outputs}) {constants} {{
        {_SLOTS} {_PAST} {_NEW}
        newest = Add(past_rows, last_rows)
        {_weighted("old", "newest", "past_steps", "past", "is_past")}
        {_weighted("new", "last_rows", "steps", "seen", "is_new")}
        bag = Add(old, new)
        {_unit("embedding", "bag")}
    }}"""
    cross = f"""{_HEAD} cross (float[B, C, {d}] candidates, {past_inputs})
        => (float[B, C, {d}] hidden, float[B, C] score) {constants} {{
        {_PAST}
        newest = Sub(past_rows, one)
        {_weighted("bag", "newest", "past_steps", "past", "is_past")}
        bag_row = Unsqueeze(bag, column_axis)
        {_unit("user", "bag_row")}
        {_unit("item", "candidates")}
        both = Mul(user, item)
        cosine = ReduceSum<keepdims = 0>(both, last_axis)
        score = Mul(cosine, sharpness)
        sum = Add(user, item)
        {_unit("hidden", "sum")}
    }}"""
    made = {"encode": encode, "append": append, "cross": cross}
    return {name: _checked(text).SerializeToString(deterministic=True) for name, text in made.items()}


def _checked(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    # Not every constant is used in each graph.
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def bag_shape(d_model: int, rows: int, context: int = 256, keep: int = 192) -> ModelShape:
    """One "layer" of one "kv head" of half a token: so a slot has as many numbers as a token."""
    return ModelShape(layers=1, d_model=d_model, heads=2, kv_heads=1, context=context, keep=keep, rows=rows)
