/* What products read: half-words, in w8a8 too, where they hold bytes. */

typedef int16_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)(ERN_W8A16 ? h : ern_view8(h)); }
