/* int8 multiply-accumulates as fast as a CPU can: twelve accumulators that depend on nothing but themselves and never
   leave their registers, which only inline assembly warrants. Compiled with one of the forms defined:

   gcc -O2 -shared -fPIC -DAVX512_VNNI peak.c

   run(n) computes n * MACS products and adds them. */

#define TWELVE(D) D(0) D(1) D(2) D(3) D(4) D(5) D(6) D(7) D(8) D(9) D(10) D(11)
#define LINES(D) TWELVE(D) TWELVE(D) TWELVE(D) TWELVE(D)

#if defined AVX512_VNNI
#define MACS (48 * 64)
#define STEP(n) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #n "\n"
#elif defined AVX_VNNI
#define MACS (48 * 32)
#define STEP(n) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #n "\n"
#elif defined AVX2 /* widened to int16 beforehand */
#define MACS (48 * 16)
#define STEP(n) "vpmaddwd %%ymm12, %%ymm13, %%ymm14\nvpaddd %%ymm14, %%ymm" #n ", %%ymm" #n "\n"
#elif defined NEON_DOTPROD
#define ARCH ".arch armv8.2-a+dotprod\n"
#define MACS (48 * 16)
#define STEP(n) "sdot v" #n ".4s, v12.16b, v13.16b\n"
#elif defined NEON
#define ARCH ""
#define MACS (48 * 8)
#define STEP(n) "smull v14.8h, v12.8b, v13.8b\nsadalp v" #n ".4s, v14.8h\n"
#endif

#define CLOBBERED(R) R "0", R "1", R "2", R "3", R "4", R "5", R "6", R "7", R "8", R "9", R "10", R "11", R "12", R "13", R "14"

long macs(void) { return MACS; }

void run(long n)
{
#if defined __x86_64__
    __asm__ volatile("1:\n" LINES(STEP) "dec %0\njnz 1b\nvzeroupper\n" : "+r"(n) : : "cc", CLOBBERED("xmm"));
#else
    __asm__ volatile(ARCH "1:\n" LINES(STEP) "subs %0, %0, #1\nb.ne 1b\n" : "+r"(n) : : "cc", CLOBBERED("v"));
#endif
}
