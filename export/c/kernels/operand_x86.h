/* What products read: bytes, in w8a16 half-words. The dot products of VNNI take one operand's bytes as unsigned: there
 * every byte in memory is 128 more than what it stands for, which is its upper bit flipped. */

#if ERN_W8A16
typedef int16_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)h; }
#else
typedef int8_t ern_operand;
#if defined(ERN_VNNI)
#define ERN_FLIPPED (-128)
#else
#define ERN_FLIPPED 0
#endif
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)(ern_view8(h) ^ ERN_FLIPPED); }
#endif
