#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// The linear classifier behind a solve: mean cross entropy of each member and its gradients. Torch
// does the same in ten small operations, which together cost an eighth of a short solve.
// Arrays: z, grad_z (members, batch, dim); w (members, dim, classes); b (members, classes);
// y (members, batch) labels; loss (members). One loop over samples, members outermost.
extern "C" struct Classifier {
    int64_t members, batch, dim, classes;
    const float *z, *w, *b;
    const int64_t *y;
    float *loss, *grad_z, *grad_w, *grad_b;
};

inline bool labels_are_known(const Classifier &q) {
    return std::all_of(q.y, q.y + q.members * q.batch,
                       [&](int64_t label) { return 0 <= label && label < q.classes; });
}

inline void classify(const Classifier &q) {
    const int64_t dim = q.dim, classes = q.classes;
    std::vector<float> slope(classes);
    std::fill_n(q.grad_w, q.members * dim * classes, 0.0f);
    std::fill_n(q.grad_b, q.members * classes, 0.0f);
    for (int64_t m = 0; m < q.members; ++m) {
        const float *w = q.w + m * dim * classes, *b = q.b + m * classes;
        float *grad_w = q.grad_w + m * dim * classes, *grad_b = q.grad_b + m * classes;
        double loss = 0.0;
        for (int64_t n = m * q.batch; n < (m + 1) * q.batch; ++n) {
            const float *z = q.z + n * dim;
            const int64_t label = q.y[n];
            std::copy_n(b, classes, slope.begin());
            for (int64_t i = 0; i < dim; ++i)
                for (int64_t c = 0; c < classes; ++c) slope[c] += z[i] * w[i * classes + c];
            const float top = *std::max_element(slope.begin(), slope.end());
            const float own = slope[label] - top;
            float sum = 0.0f;
            for (float &s : slope) sum += s = std::exp(s - top);
            loss += std::log(sum) - own;
            // d loss / d logits = (softmax - one-hot) / batch
            for (int64_t c = 0; c < classes; ++c) {
                slope[c] = (slope[c] / sum - float(c == label)) / float(q.batch);
                grad_b[c] += slope[c];
            }
            for (int64_t i = 0; i < dim; ++i) {
                float grad = 0.0f;
                for (int64_t c = 0; c < classes; ++c) {
                    grad += slope[c] * w[i * classes + c];
                    grad_w[i * classes + c] += z[i] * slope[c];
                }
                q.grad_z[n * dim + i] = grad;
            }
        }
        q.loss[m] = float(loss / double(q.batch));
    }
}
