"""What the machine can do: its instructions by number. Numba takes them as constants.

An instruction is a row of whole numbers: code, result, two operands, a constant's bits, one more. Results and
operands are registers, a float32 number (or 32 bits) per element; a mask is all bits or none."""

LOAD16, LOAD32, FILL = 0, 1, 2  # from a row of stored bytes (operand a); a constant
ADD, SUB, MUL, DIV = 3, 4, 5, 6
ADD_TO, SUB_TO, MUL_BY, DIV_BY, CLAMP = 7, 8, 9, 10, 11  # with the constant; CLAMP: not below it
ABS, SIGN, ROUND16 = 12, 13, 14  # ROUND16: to bfloat16 and back
GT, GE, EQ = 15, 16, 17  # masks: of two registers
GT_C, GE_C, LT_C, LE_C, EQ_C = 18, 19, 20, 21, 22  # of a register and the constant
AND, OR, XOR, NOT = 23, 24, 25, 26
MASKED, CHOOSE, AS_NUMBER = 27, 28, 29  # a * mask b; mask c ? a : b; 1 where the mask a is true
FIRST = 30  # of the mask a, the first `constant` elements in order of place
DRAWN = 31  # what the draw in row a of `draws` keeps
SAME = 33  # mask: equal bits
ALL = 34  # the mask that is true everywhere

# Register a, rounded before, into the row b of stored bytes; last: the counter of what is not finite.
STORE16, STORE32 = 40, 41
COUNT, COUNT_BOTH, ENERGY = 43, 44, 45  # of the mask a (and b), of the squares of a; result: which counter
TOTAL = 46  # sum of whole numbers, by chunk
RANK = 47  # how a lies to the bracket [constant, constant of the instruction y]
NOTHING = 48
MASKS = frozenset([*range(GT, NOT + 1), FIRST, DRAWN, SAME, ALL])  # what gives masks
