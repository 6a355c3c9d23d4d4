// Lookup and step of embedding tables on CPUs: one operation each, for all tables of a train step.
//
// TfrsDlrmLookup reads and pools the rows of every feature, and writes their vectors side by side, as the layers read
// them. TfrsDlrmStep reads the gradient in the same form. It sorts the lookups of each table by row, adds up the
// gradients of each row, and takes the optimizer's step on row and slot in the same pass. Results do not depend on the
// number of threads: a row belongs to one task, and its gradients are added in the order of the features and examples.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor_util.h"
#include "tensorflow/core/platform/threadpool.h"

namespace {

using namespace tensorflow;  // NOLINT

// The inputs that describe lookups, of F features in V tables. Feature i reads tables[table_of[i]].
//   rows: of each feature, ordered by bag.
//   splits: the rows of bag b are rows[splits[b]:splits[b + 1]]; empty if bag b is row b.
//   scales: by which the sum of a bag is multiplied; empty if that is 1.
// `columns` has the first column of each feature among the `width` columns of all vectors.
#define LOOKUP_ATTRIBUTES \
  .Attr("F: int >= 1").Attr("V: int >= 1").Attr("T: {float, bfloat16}").Attr("table_of: list(int)") \
  .Attr("columns: list(int)").Attr("width: int").SetIsStateful()

REGISTER_OP("TfrsDlrmLookup") LOOKUP_ATTRIBUTES
    .Input("tables: V * resource")
    .Input("rows: F * int32")
    .Input("splits: F * int64")
    .Input("scales: F * float")
    .Output("vectors: T")
    .SetShapeFn([](shape_inference::InferenceContext* c) {
      int64_t width;
      TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
      c->set_output(0, c->Matrix(c->UnknownDim(), c->MakeDim(width)));
      return absl::OkStatus();
    });

REGISTER_OP("TfrsDlrmStep") LOOKUP_ATTRIBUTES
    .Attr("S: int >= 0")
    .Attr("rule: {'sgd', 'adagrad', 'rowwise_adagrad'}")
    .Attr("epsilon: float")
    .Input("tables: V * resource")
    .Input("slots: S * resource")
    .Input("rows: F * int32")
    .Input("splits: F * int64")
    .Input("scales: F * float")
    .Input("gradient: T")
    .Input("rate: float")
    .SetShapeFn(shape_inference::NoOutputs);

inline float ToFloat(float x) { return x; }

inline float ToFloat(bfloat16 x) {
  uint16_t half;
  std::memcpy(&half, &x, sizeof half);
  const uint32_t bits = uint32_t(half) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline void Store(const float* from, int64_t n, float* to) { std::memcpy(to, from, n * sizeof(float)); }

// Rounds to the nearest, ties to even, as TensorFlow's casts do. Compilers make vector instructions of this form.
inline void Store(const float* from, int64_t n, bfloat16* to) {
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint16_t half = (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0 : rounded;  // NaN stays NaN
    std::memcpy(to + i, &half, sizeof half);
  }
}

inline void Prefetch(const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i);
}

struct Feature {
  float* table;
  int64_t size, dim, column;
  const int32_t* rows;
  int64_t count;
  const int64_t* splits;  // null if each bag is one row
  const float* scales;    // null if all are 1
  int64_t bags;

  int64_t begin(int64_t bag) const { return splits ? splits[bag] : bag; }
  const float* row(int64_t i) const { return table + int64_t(rows[i]) * dim; }

  // Whether memory outside of the table would be read; says nothing of what the rows mean.
  bool Fits(int64_t first_bag, int64_t last_bag) const {
    if (splits) {
      for (int64_t b = first_bag; b < last_bag; ++b)
        if (splits[b] < 0 || splits[b] > splits[b + 1] || splits[b + 1] > count) return false;
    }
    for (int64_t i = begin(first_bag); i < begin(last_bag); ++i)
      if (uint32_t(rows[i]) >= uint64_t(size)) return false;
    return true;
  }
};

// Part of the work on a feature, or on a table: some of its bags, or of its sorted lookups.
struct Task {
  int of;
  int64_t begin, end;
};

class TablesOp : public OpKernel {
 public:
  explicit TablesOp(OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("F", &features_));
    OP_REQUIRES_OK(c, c->GetAttr("V", &tables_));
    OP_REQUIRES_OK(c, c->GetAttr("table_of", &table_of_));
    OP_REQUIRES_OK(c, c->GetAttr("columns", &columns_));
    OP_REQUIRES_OK(c, c->GetAttr("width", &width_));
    bool fits = int(table_of_.size()) == features_ && int(columns_.size()) == features_;
    for (int t : table_of_) fits = fits && t >= 0 && t < tables_;
    OP_REQUIRES(c, fits, errors::InvalidArgument("table_of and columns need a number for each of ", features_,
                                                 " features, of one of ", tables_, " tables"));
  }

 protected:
  using Variables = std::vector<core::RefCountPtr<Var>>;

  // Makes whole reads of the first `count` inputs copy them, as operations on rows of variables do, since these are
  // read and written in place.
  absl::Status Open(OpKernelContext* c, int count, Variables* variables) {
    variables->resize(count);
    for (int i = 0; i < count; ++i) {
      TF_RETURN_IF_ERROR(LookupResource(c, HandleFromInput(c, i), &(*variables)[i]));
      Var* variable = (*variables)[i].get();
      if (!variable->copy_on_read_mode.load()) {
        mutex_lock lock(*variable->mu());
        if (!variable->tensor()->RefCountIsOne()) *variable->tensor() = tensor::DeepCopy(*variable->tensor());
        variable->copy_on_read_mode.store(true);
      }
      if (variable->tensor()->dtype() != DT_FLOAT) return errors::InvalidArgument("variable ", i, " is not float32");
    }
    return absl::OkStatus();
  }

  // Holds the variables for reading or for writing, in one order in every operation.
  template <typename Lock>
  static std::vector<std::unique_ptr<Lock>> Hold(const Variables& variables) {
    std::vector<mutex*> all;
    for (const auto& v : variables) all.push_back(v->mu());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    std::vector<std::unique_ptr<Lock>> held;
    for (mutex* each : all) held.push_back(std::make_unique<Lock>(*each));
    return held;
  }

  // Reads the inputs that describe lookups, the first of which is number `at`.
  absl::Status Read(OpKernelContext* c, const Variables& variables, int at, std::vector<Feature>* features) {
    features->resize(features_);
    for (int i = 0; i < features_; ++i) {
      Tensor* table = variables[table_of_[i]]->tensor();
      const Tensor &rows = c->input(at + i), &splits = c->input(at + features_ + i),
                   &scales = c->input(at + 2 * features_ + i);
      if (table->dims() != 2) return errors::InvalidArgument("table ", table_of_[i], " is no matrix");
      Feature& f = (*features)[i];
      f = {table->flat<float>().data(), table->dim_size(0), table->dim_size(1), columns_[i],
           rows.flat<int32_t>().data(), rows.NumElements(), nullptr, nullptr, rows.NumElements()};
      if (splits.NumElements()) f.splits = splits.flat<int64_t>().data(), f.bags = splits.NumElements() - 1;
      if (scales.NumElements()) f.scales = scales.flat<float>().data();
      const bool one_size = f.bags == (*features)[0].bags && (!f.scales || scales.NumElements() == f.bags);
      if (!one_size) return errors::InvalidArgument("feature ", i, " has ", f.bags, " bags, another has more or fewer");
      if (f.column < 0 || f.column + f.dim > width_)
        return errors::InvalidArgument("feature ", i, " has no place for ", f.dim, " numbers in ", width_, " columns");
    }
    return absl::OkStatus();
  }

  template <typename Function>
  static void InParallel(OpKernelContext* c, int64_t tasks, Function run) {
    thread::ThreadPool::SchedulingParams one_by_one(thread::ThreadPool::SchedulingStrategy::kFixedBlockSize,
                                                    std::nullopt, 1);
    c->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        tasks, one_by_one, [&](int64_t begin, int64_t end) {
          for (; begin < end; ++begin) run(begin);
        });
  }

  static absl::Status Outside() {
    return errors::InvalidArgument("a row is outside its table, or bags are not in order");
  }

  int features_, tables_;
  int64_t width_;
  std::vector<int> table_of_, columns_;
};

constexpr int kAhead = 12;               // rows that are fetched before they are read
constexpr int64_t kNumbers = 1 << 17;    // of rows that a task reads, at least about so many

template <typename T>
class LookupOp : public TablesOp {
 public:
  using TablesOp::TablesOp;

  void Compute(OpKernelContext* c) override {
    Variables variables;
    OP_REQUIRES_OK(c, Open(c, tables_, &variables));
    const auto held = Hold<tf_shared_lock>(variables);
    std::vector<Feature> features;
    OP_REQUIRES_OK(c, Read(c, variables, tables_, &features));
    Tensor* vectors;
    OP_REQUIRES_OK(c, c->allocate_output(0, TensorShape({features[0].bags, width_}), &vectors));
    T* to = vectors->flat<T>().data();

    std::vector<Task> tasks;
    for (int i = 0; i < features_; ++i) {
      const Feature& f = features[i];
      const int64_t each = std::max<int64_t>(1, f.bags * kNumbers / std::max<int64_t>(1, f.count * f.dim));
      for (int64_t b = 0; b < f.bags; b += each) tasks.push_back({i, b, std::min(b + each, f.bags)});
    }
    // Tasks of the same examples stand together: they write to the same part of the result.
    std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.begin < b.begin; });
    std::atomic<bool> outside{false};
    InParallel(c, tasks.size(), [&](int64_t i) {
      const Task& task = tasks[i];
      const Feature& f = features[task.of];
      if (f.Fits(task.begin, task.end)) {
        Look(f, task.begin, task.end, to + f.column);
      } else {
        outside = true;
      }
    });
    OP_REQUIRES(c, !outside, Outside());
  }

 private:
  void Look(const Feature& f, int64_t bag, int64_t end, T* to) {
    const int64_t last = f.begin(end), bytes = f.dim * sizeof(float);
    int64_t i = f.begin(bag);
    for (int64_t j = i; j < std::min(i + kAhead, last); ++j) Prefetch(f.row(j), bytes);
    std::vector<float> sum(f.dim);
    for (; bag < end; ++bag) {
      T* vector = to + bag * width_;
      const int64_t next = f.begin(bag + 1);
      if (!f.splits && !f.scales) {
        if (i + kAhead < last) Prefetch(f.row(i + kAhead), bytes);
        Store(f.row(i++), f.dim, vector);
        continue;
      }
      float* s = sum.data();
      std::fill(s, s + f.dim, 0.0f);
      for (; i < next; ++i) {
        if (i + kAhead < last) Prefetch(f.row(i + kAhead), bytes);
        const float* row = f.row(i);
        for (int64_t d = 0; d < f.dim; ++d) s[d] += row[d];
      }
      if (f.scales) {
        for (int64_t d = 0; d < f.dim; ++d) s[d] *= f.scales[bag];
      }
      Store(s, f.dim, vector);
    }
  }
};

// The lookups of one table: in each the row in the upper half, and in the lower where its gradient begins.
using Lookups = std::vector<uint64_t>;

inline int64_t RowOf(uint64_t lookup) { return lookup >> 32; }
inline int64_t PlaceOf(uint64_t lookup) { return uint32_t(lookup); }

// Sorts by row and keeps the order of equal rows: by radix, of as few digits of up to 11 bits as `size` rows need.
void Sort(int64_t size, Lookups* lookups) {
  int bits = 1;
  while ((int64_t(1) << bits) < size) ++bits;
  const int passes = (bits + 10) / 11, digit = (bits + passes - 1) / passes;
  const uint64_t mask = (uint64_t(1) << digit) - 1;
  Lookups sorted(lookups->size());
  std::vector<uint32_t> at(mask + 1);
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = 32 + pass * digit;
    std::fill(at.begin(), at.end(), 0);
    for (uint64_t x : *lookups) ++at[(x >> shift) & mask];
    uint32_t sum = 0;
    for (uint32_t& place : at) {
      const uint32_t count = place;
      place = sum;
      sum += count;
    }
    for (uint64_t x : *lookups) sorted[at[(x >> shift) & mask]++] = x;
    lookups->swap(sorted);
  }
}

template <typename T>
class StepOp : public TablesOp {
 public:
  explicit StepOp(OpKernelConstruction* c) : TablesOp(c) {
    std::string rule;
    OP_REQUIRES_OK(c, c->GetAttr("S", &slots_));
    OP_REQUIRES_OK(c, c->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(c, c->GetAttr("rule", &rule));
    rule_ = rule == "sgd" ? kSGD : rule == "adagrad" ? kAdagrad : kRowWiseAdagrad;
    OP_REQUIRES(c, slots_ == (rule_ == kSGD ? 0 : tables_), errors::InvalidArgument("a slot per table is needed"));
  }

  void Compute(OpKernelContext* c) override {
    Variables variables;
    OP_REQUIRES_OK(c, Open(c, tables_ + slots_, &variables));
    const auto held = Hold<mutex_lock>(variables);
    const int at = tables_ + slots_;
    std::vector<Feature> features;
    OP_REQUIRES_OK(c, Read(c, variables, at, &features));
    const Tensor& gradient = c->input(at + 3 * features_);
    OP_REQUIRES(c, gradient.NumElements() == features[0].bags * width_ && gradient.NumElements() < int64_t(1) << 32,
                errors::InvalidArgument("gradient of shape ", gradient.shape().DebugString(), "; ", features[0].bags,
                                        " x ", width_, " numbers are needed, and fewer than 2^32"));
    std::vector<std::vector<const Feature*>> of_table(tables_);
    for (int i = 0; i < features_; ++i) of_table[table_of_[i]].push_back(&features[i]);
    for (int t = 0; t < slots_; ++t) {
      const int64_t rows = variables[t]->tensor()->dim_size(0), dim = variables[t]->tensor()->dim_size(1);
      OP_REQUIRES(c, variables[tables_ + t]->tensor()->NumElements() == (rule_ == kAdagrad ? rows * dim : rows),
                  errors::InvalidArgument("the slot of table ", t, " has another size"));
    }

    std::vector<Lookups> lookups(tables_);
    std::atomic<bool> outside{false};
    InParallel(c, tables_, [&](int64_t t) {
      if (!Collect(of_table[t], &lookups[t])) outside = true;
    });
    OP_REQUIRES(c, !outside, Outside());  // before anything is written

    std::vector<Task> tasks;  // parts of about equal size, none of which ends within a row
    for (int t = 0; t < tables_; ++t) {
      const Lookups& all = lookups[t];
      const int64_t count = all.size();
      const int64_t each = std::max<int64_t>(64, kNumbers / 2 / variables[t]->tensor()->dim_size(1));
      for (int64_t begin = 0, end; begin < count; begin = end) {
        end = std::min(begin + each, count);
        while (end < count && RowOf(all[end]) == RowOf(all[end - 1])) ++end;
        tasks.push_back({t, begin, end});
      }
    }
    const T* g = gradient.flat<T>().data();
    const float rate = c->input(at + 3 * features_ + 1).scalar<float>()();
    InParallel(c, tasks.size(), [&](int64_t i) {
      const int t = tasks[i].of;
      float* slot = slots_ ? variables[tables_ + t]->tensor()->flat<float>().data() : nullptr;
      const uint64_t* all = lookups[t].data();
      Step(of_table[t], slot, g, rate, all + tasks[i].begin, all + tasks[i].end, all + lookups[t].size());
    });
  }

 private:
  // Returns the sorted lookups of the features of a table; false if one is outside of it.
  bool Collect(const std::vector<const Feature*>& features, Lookups* lookups) {
    size_t count = 0;
    for (const Feature* f : features) count += f->count;
    lookups->reserve(count);
    for (const Feature* f : features) {
      if (!f->Fits(0, f->bags)) return false;
      for (int64_t b = 0; b < f->bags; ++b)
        for (int64_t i = f->begin(b); i < f->begin(b + 1); ++i)
          lookups->push_back(uint64_t(f->rows[i]) << 32 | uint64_t(b * width_ + f->column));
    }
    if (!features.empty()) Sort(features[0]->size, lookups);
    return true;
  }

  // Takes the step on the rows of the lookups from `at` to `end`; `last` is the end of those that may be fetched ahead.
  void Step(const std::vector<const Feature*>& features, float* slot, const T* gradient, float rate, const uint64_t* at,
            const uint64_t* end, const uint64_t* last) {
    const Feature& f = *features[0];  // whose table they share
    const bool scaled = std::any_of(features.begin(), features.end(), [](const Feature* x) { return x->scales; });
    const int64_t dim = f.dim, bytes = dim * sizeof(float);
    std::vector<float> sum(dim);
    float* g = sum.data();
    const auto fetch = [&](uint64_t lookup) {
      Prefetch(gradient + PlaceOf(lookup), dim * sizeof(T));
      Prefetch(f.table + RowOf(lookup) * dim, bytes);
      if (rule_ == kAdagrad) Prefetch(slot + RowOf(lookup) * dim, bytes);
      if (rule_ == kRowWiseAdagrad) Prefetch(slot + RowOf(lookup), 1);
    };
    for (const uint64_t* x = at; x < std::min(at + kAhead, last); ++x) fetch(*x);
    while (at < end) {
      const int64_t row = RowOf(*at);
      std::fill(g, g + dim, 0.0f);
      for (; at < end && RowOf(*at) == row; ++at) {
        if (at + kAhead < last) fetch(at[kAhead]);
        const T* from = gradient + PlaceOf(*at);
        const float scale = scaled ? Scale(features, PlaceOf(*at)) : 1.0f;
        for (int64_t d = 0; d < dim; ++d) g[d] += scale * ToFloat(from[d]);
      }
      float* w = f.table + row * dim;
      if (rule_ == kSGD) {
        for (int64_t d = 0; d < dim; ++d) w[d] -= rate * g[d];
      } else if (rule_ == kAdagrad) {
        float* a = slot + row * dim;
        for (int64_t d = 0; d < dim; ++d) {
          a[d] += g[d] * g[d];
          w[d] -= rate * g[d] / (std::sqrt(a[d]) + epsilon_);
        }
      } else {
        slot[row] += SumOfSquares(g, dim) / dim;
        const float by = rate / (std::sqrt(slot[row]) + epsilon_);
        for (int64_t d = 0; d < dim; ++d) w[d] -= by * g[d];
      }
    }
  }

  float Scale(const std::vector<const Feature*>& features, int64_t place) const {
    for (const Feature* f : features)
      if (f->column == place % width_) return f->scales ? f->scales[place / width_] : 1.0f;
    return 1.0f;
  }

  // In 16 sums, which compilers make vector instructions of.
  static float SumOfSquares(const float* g, int64_t dim) {
    float sums[16] = {}, total = 0.0f;
    int64_t d = 0;
    for (; d + 16 <= dim; d += 16)
      for (int i = 0; i < 16; ++i) sums[i] += g[d + i] * g[d + i];
    for (; d < dim; ++d) total += g[d] * g[d];
    for (float each : sums) total += each;
    return total;
  }

  enum { kSGD, kAdagrad, kRowWiseAdagrad } rule_;
  int slots_;
  float epsilon_;
};

#define REGISTER(T)                                                                                     \
  REGISTER_KERNEL_BUILDER(Name("TfrsDlrmLookup").Device(DEVICE_CPU).TypeConstraint<T>("T"), LookupOp<T>); \
  REGISTER_KERNEL_BUILDER(Name("TfrsDlrmStep").Device(DEVICE_CPU).TypeConstraint<T>("T"), StepOp<T>);
REGISTER(float)
REGISTER(bfloat16)

}  // namespace
