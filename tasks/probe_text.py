"""The paragraphs of the collapse probe, written for it."""

from harness import generated

PARAGRAPHS = (
    "The bakery at the corner opens before sunrise. By six the first loaves are on the shelf, and "
    "people on their way to work stop for a roll and a word with the baker.",
    "A river begins as a spring in the hills. On its way to the sea it takes in many streams, turns "
    "mills, waters fields, and carries boats past the towns that grew along its banks.",
    "When the train was late the station filled with passengers. Some read, some slept on their bags, "
    "and a child counted the pigeons under the roof until at last the lights appeared in the distance.",
    "To repair a bicycle tyre, take the wheel off, remove the tube, and find the hole by listening for "
    "the air. Clean the spot, apply the patch, wait until it holds, and pump the tyre up again.",
    "The committee met on Tuesday to discuss the budget. After two hours it agreed to spend less on "
    "printing and more on the repair of the school's roof, which had leaked since the spring.",
    "Bread, cheese and apples were on the table. My grandmother cut thick slices, poured tea for "
    "everyone, and told us how the village looked when she was a girl.",
    "Water boils at a lower temperature in the mountains, because the pressure of the air is less "
    "there. Cooks who live high up know that potatoes need more time.",
    "At night the harbour is quiet. The ropes creak, a lamp swings on the mast of the last fishing "
    "boat, and far out the beam of the lighthouse passes over the waves.",
)


@generated("test", "validation")
def paragraphs(split: str) -> list[dict]:
    return [{"text": text} for text in PARAGRAPHS]
