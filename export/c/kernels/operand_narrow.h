/* What products read: bytes, in w8a16 half-words. */

#if ERN_W8A16
typedef int16_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)h; }
#else
typedef int8_t ern_operand;
ERN_INLINE ern_operand ern_view(int32_t h) { return (ern_operand)ern_view8(h); }
#endif
