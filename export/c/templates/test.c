#define EDGERNN_NO_MAIN
@test@
