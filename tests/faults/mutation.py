"""Seeded damage to good calls: to fields, to bytes, to the order of messages."""

import math
import random
import re
import struct

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .good_calls import MODELS, Call

MANY = 10_000  # Entries, once in a while.
LARGEST_MESSAGE = 256 << 10  # Most mutated messages should be read, not refused for their size.

INTEGERS = [0, 1, -1, 2, 3, 7, 31, 48, 49, 64, 255, 1024, 1 << 31, 1 << 32, 1 << 40, 1 << 62]
INTEGERS += [(1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e-12, 1e-300, 5e-324, 1e300, 1.7976931348623157e308]
NUMBERS += [math.nan, math.inf, -math.inf]
STRINGS = ["", "0", "a", "x" * 128, "x" * 129, "x" * 257, "x" * 70_000, "\0", "\n", "{}", "%s%n"]
STRINGS += ["é" * 100, "\U0001f600", "\ufffd", "..", "../tiny-llama", "/etc/passwd", ".", "-"]
STRINGS += ["auto", "cpu", "cpu:0", "cpu:1", "cuda", "cuda:0", "cuda:-1", "cuda:128", "meta"]
STRINGS += ["mps", "xla:1", "cpu:99999999999", "privateuseone", "lazy"]
STRINGS += ["000", "001", "000.mamba", "999", "second", "T", "a", "b", "c", "A", "band", "sinks"]
STRINGS += [
    "TOKENS",
    "TEXT",
    "LENGTHS",
    "ESS",
    "CERTAIN",
    "INT32",
    "INT64",
    "BYTES",
    "FP32",
    "1",
    "2",
]
STRINGS += ["measures", "layers", "layer", "timeout", "priority", "horizon", "sequence_id", "0-3:2"]
STRINGS += ["shared_memory_region", "classification", "triton_final_response", "entropy,causal"]
STRINGS += list(MODELS)
ENUMS = [0, 1, 2, 3, 4, 7, 8, 99, -1, (1 << 31) - 1, -(1 << 31)]

RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


def mutated_call(calls: tuple[Call, ...], seed: int) -> tuple[str, list[bytes]]:
    """The method and the messages, as bytes, of one damaged call. Equal seeds give equal calls."""
    rng = random.Random(seed)
    call = rng.choice(calls)
    messages = []
    for message in call.messages:
        copy = type(message)()
        copy.CopyFrom(message)
        messages.append(copy)
    ways = rng.choices(["fields", "bytes", "order", "both"], weights=[55, 25, 8, 12])[0]
    if ways in ("fields", "both"):
        for _ in range(rng.choice([1, 1, 2, 4])):
            mutate_fields(rng.choice(messages), rng)
    encoded = [message.SerializeToString(deterministic=True) for message in messages]
    if ways in ("bytes", "both"):
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(len(encoded))
            encoded[place] = mutate_bytes(encoded[place], rng)
    if ways == "order":
        encoded = mutate_order(encoded, calls, rng)
    return call.method, encoded


def mutate_fields(message: Message, rng: random.Random) -> None:
    """Sets one field, anywhere in the message, to something extreme."""
    places = [(part, field) for part in parts_of(message) for field in part.DESCRIPTOR.fields]
    if not places:
        return
    part, field = rng.choice(places)
    if is_map(field):
        mutate_map(getattr(part, field.name), field, rng)
    elif field.is_repeated:
        mutate_repeated(getattr(part, field.name), field, rng)
    elif field.cpp_type == field.CPPTYPE_MESSAGE:
        if rng.random() < 0.5:
            part.ClearField(field.name)
        else:
            getattr(part, field.name).SetInParent()
    else:
        setattr(part, field.name, extreme(field, getattr(part, field.name), rng))


def parts_of(message: Message) -> list[Message]:
    """The message and all messages in it."""
    parts = [message]
    for field, value in message.ListFields():
        if field.cpp_type == field.CPPTYPE_MESSAGE:
            inside = value.values() if is_map(field) else value if field.is_repeated else [value]
            for part in inside:
                if isinstance(part, Message):
                    parts += parts_of(part)
    return parts


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def mutate_map(values, field: FieldDescriptor, rng: random.Random) -> None:
    """Entries whose values are messages or strings: none, fewer, or more under any name."""
    way = rng.choice(["clear", "drop", "add", "add", "add", "rename"])
    if way == "clear":
        values.clear()
        return
    names = sorted(values)
    if way == "drop" and names:
        del values[rng.choice(names)]
        return
    count = MANY if rng.random() < 0.02 else 1
    for number in range(count):
        name = rng.choice(STRINGS) if count == 1 else f"name{number}"
        if field.message_type.fields_by_name["value"].message_type is None:
            values[name] = rng.choice(STRINGS)
            continue
        values[name].SetInParent()
        if way == "rename" and names:
            values[name].CopyFrom(values[rng.choice(names)])


def mutate_repeated(values, field: FieldDescriptor, rng: random.Random) -> None:
    way = rng.choice(["clear", "drop", "repeat", "reverse", "add", "add", "change", "change"])
    if rng.random() < 0.03:
        way = "many"
    if way == "clear":
        del values[:]
    elif way == "drop" and values:
        del values[rng.randrange(len(values))]
    elif way == "repeat" and values:
        values.extend([values[rng.randrange(len(values))]])
    elif way == "reverse":
        turned = list(values)[::-1]
        del values[:]
        values.extend(turned)
    elif way == "many":
        filling = values[0] if len(values) else new_entry(field, rng)
        values.extend([filling] * MANY)
    elif way == "add" and len(values) < MANY:
        values.extend([new_entry(field, rng)])
    elif values and field.cpp_type != field.CPPTYPE_MESSAGE:
        place = rng.randrange(len(values))
        values[place] = extreme(field, values[place], rng)


def new_entry(field: FieldDescriptor, rng: random.Random):
    if field.cpp_type == field.CPPTYPE_MESSAGE:
        return GetMessageClass(field.message_type)()
    return extreme(field, field.default_value or 0, rng)


def extreme(field: FieldDescriptor, value, rng: random.Random):
    kind = field.cpp_type
    if kind in RANGES:
        low, high = RANGES[kind]
        near = value + rng.choice([-1, 1]) if isinstance(value, int) else 0
        chosen = rng.choice([*INTEGERS, near, near])
        return min(max(chosen, low), high)
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return rng.choice(NUMBERS)
    if kind == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.CPPTYPE_ENUM:
        return rng.choice(ENUMS)
    if field.type == field.TYPE_BYTES:
        return mutate_elements(bytes(value or b""), rng)
    return rng.choice(STRINGS)


def mutate_elements(values: bytes, rng: random.Random) -> bytes:
    """Damage to the numbers of a brought operator."""
    way = rng.choice(["number", "number", "number", "cut", "double", "empty", "bytes"])
    if way == "number" and len(values) >= 8:
        place = rng.randrange(len(values) // 8) * 8
        return values[:place] + struct.pack("<d", rng.choice(NUMBERS)) + values[place + 8 :]
    if way == "cut":
        return values[: rng.randrange(len(values) + 1)]
    if way == "double":
        return values * 2
    return b"" if way == "empty" else mutate_bytes(values, rng)


def mutate_bytes(encoded: bytes, rng: random.Random) -> bytes:
    """Damage below the level of fields: what no correct library would write."""
    place = rng.randrange(len(encoded) + 1)
    way = rng.choice(["flip", "flip", "insert", "cut", "drop", "utf8", "varint", "nest", "repeat"])
    if way == "flip" and encoded:
        place = rng.randrange(len(encoded))
        flipped = encoded[place] ^ (1 << rng.randrange(8))
        return encoded[:place] + bytes([flipped]) + encoded[place + 1 :]
    if way == "insert":
        return encoded[:place] + rng.randbytes(rng.choice([1, 2, 8, 64])) + encoded[place:]
    if way == "cut":
        return encoded[:place]
    if way == "drop":
        return encoded[:place] + encoded[place + rng.choice([1, 2, 8]) :]
    if way == "utf8":
        words = [match.start() for match in re.finditer(rb"[ -~]{3}", encoded)]
        if words:
            place = rng.choice(words)
            bad = rng.choice([b"\xff", b"\xc0", b"\xed", b"\x80"])
            return encoded[:place] + bad + encoded[place + 1 :]
    if way == "varint":  # Ten bytes and more: lengths and tags beyond 2^63.
        length = rng.choice([4, 9, 10, 11])
        return encoded[:place] + b"\xff" * length + rng.choice([b"\x01", b"\x7f"]) + encoded[place:]
    if way == "nest":  # Groups without end, which old decoders follow to the bottom of the stack.
        return encoded + b"\x0b" * rng.choice([10, 99, 101, 20_000])
    if len(encoded) < LARGEST_MESSAGE:
        return encoded * 2
    return encoded


def mutate_order(encoded: list[bytes], calls: tuple[Call, ...], rng: random.Random) -> list[bytes]:
    """Messages that come twice, never, in another order, or from another call."""
    changed = list(encoded)
    place = rng.randrange(len(changed))
    way = rng.choice(["drop", "repeat", "swap", "stop", "other", "none", "empty"])
    if way == "drop":
        del changed[place]
    elif way == "repeat":
        changed.insert(place, changed[place])
    elif way == "swap":
        rng.shuffle(changed)
    elif way == "stop":
        del changed[place + 1 :]
    elif way == "other":
        other = rng.choice(rng.choice(calls).messages)
        changed.insert(place, other.SerializeToString(deterministic=True))
    elif way == "none":
        changed = []
    else:
        changed.insert(place, b"")
    return changed
