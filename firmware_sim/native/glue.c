/* What a library exports: the same names for every model. MODEL_STATES: STATE(h_0), .., the model's states. */

#include <stddef.h>
#include "model.c"

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

#if MODEL_BIDIRECTIONAL
#define WORK_BYTES (MODEL_WORK_SIZE(1) * sizeof(model_work_t))
#define RUN(state, x, steps, y) model_run(state, x, steps, y, work)
#else
#define WORK_BYTES 0
#define RUN(state, x, steps, y) ((void)work, model_run(state, x, steps, y))
typedef void model_work_t;
#endif

#define STATE(name) offsetof(model_state_t, name)

/* Bytes of the state, of work a step, of an output; then where each state is. */
EXPORTED extern const uint32_t edgernn_sizes[];
const uint32_t edgernn_sizes[] = {sizeof(model_state_t), WORK_BYTES, sizeof(model_output_t), MODEL_STATES};

EXPORTED void edgernn_reset(model_state_t *state);
EXPORTED void edgernn_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y,
                          model_work_t *work);
EXPORTED void edgernn_run_batch(const model_input_t *x, const int64_t *lengths, int64_t count, int64_t steps,
                                model_output_t *y, model_work_t *work);

void edgernn_reset(model_state_t *state) { model_reset(state); }

/* Steps from the state as it is (a bidirectional model's: from zero). */
void edgernn_run(model_state_t *state, const model_input_t *x, uint32_t steps, model_output_t *y, model_work_t *work) {
  RUN(state, x, steps, y);
}

/* Sequences [count][steps], each from the state zero over the steps that are valid; what follows in y stays. */
void edgernn_run_batch(const model_input_t *x, const int64_t *lengths, int64_t count, int64_t steps, model_output_t *y,
                       model_work_t *work) {
  model_state_t state;
  int64_t n;
  for (n = 0; n < count; n++) {
    model_reset(&state);
    RUN(&state, x, (uint32_t)lengths[n], y);
    x += steps * MODEL_INPUT_SIZE;
    y += (MODEL_EVERY_STEP ? steps : 1) * MODEL_OUTPUT_SIZE;
  }
}
