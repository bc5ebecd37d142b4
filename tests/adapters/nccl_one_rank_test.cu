// The NCCL adapter with NCCL itself: that it links, and on a device, that a communicator of one
// rank gathers and that the calls are captured in a graph. Skipped without a device of NVIDIA's,
// which NCCL needs.
#include <prospect/adapters/nccl.cuh>

#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

namespace {

namespace gpu = prospect::cuda;
namespace adapters = prospect::adapters;

int failed(const char* what) {
  std::printf("wrong: %s\n", what);
  return 1;
}
template <class T>
T* on_device(const std::vector<T>& host) {
  T* data = nullptr;
  if (cudaMalloc(reinterpret_cast<void**>(&data), host.size() * sizeof(T)) != cudaSuccess ||
      cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice) !=
          cudaSuccess) {
    return nullptr;
  }
  return data;
}

}  // namespace

int main() {
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess ||
      std::string_view{properties.name}.find("NVIDIA") == std::string_view::npos) {
    std::printf("skipped: no device that NCCL runs on\n");
    return 77;
  }
  ncclComm_t comm = nullptr;
  ncclUniqueId id;
  if (ncclGetUniqueId(&id) != ncclSuccess || ncclCommInitRank(&comm, 1, id, 0) != ncclSuccess) {
    return failed(ncclGetLastError(nullptr));
  }
  cudaStream_t stream = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) return failed("stream");

  // Two tokens over a vocabulary of two, both logits 0.
  prospect::vocabulary_partial part{
      .exponentials = 1, .squares = 1, .tokens = 2, .targets = 1, .target = 0};
  prospect::vocabulary_partial* const mine = on_device(std::vector{part, part});
  prospect::vocabulary_partial* const parts = on_device(std::vector{part, part});
  std::int64_t* const targets = on_device(std::vector<std::int64_t>{0, -100});
  float* const log_prob = on_device(std::vector<float>{9, 9});
  prospect::sum_count* const seen = on_device(std::vector<prospect::sum_count>{{3, 2}, {4, 5}});
  prospect::sum_count* const all = on_device(std::vector<prospect::sum_count>(2));
  prospect::sum_count* const sums = on_device(std::vector<prospect::sum_count>(2));

  const auto step = [&] {
    const adapters::nccl_status scores = adapters::token_log_probs(
        {mine, 2}, {parts, 1, 2}, {targets, 2}, {.log_prob = {log_prob, 2}}, {}, comm, stream);
    return scores.done() ? adapters::sum_over_ranks<prospect::sum_count>({seen, 2}, {all, 1, 2},
                                                                         {sums, 2}, comm, stream)
                         : scores;
  };
  const auto right = [&] {
    std::vector<float> l(2);
    std::vector<prospect::sum_count> s(2);
    cudaStreamSynchronize(stream);
    cudaMemcpy(l.data(), log_prob, 2 * sizeof(float), cudaMemcpyDeviceToHost);
    cudaMemcpy(s.data(), sums, 2 * sizeof(prospect::sum_count), cudaMemcpyDeviceToHost);
    return l[0] > -0.6932F && l[0] < -0.6931F && l[1] == 0 && s[0].sum == 3 && s[0].count == 2 &&
           s[1].sum == 4 && s[1].count == 5;
  };
  if (const auto status = step(); !status.done()) return failed(status.text());
  if (!right()) return failed("results");

  cudaMemset(log_prob, 0xff, 2 * sizeof(float));
  cudaMemset(sums, 0xff, 2 * sizeof(prospect::sum_count));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replayed = nullptr;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  const auto captured = step();
  cudaStreamEndCapture(stream, &graph);
  if (!captured.done()) return failed(captured.text());
  if (cudaGraphInstantiate(&replayed, graph, 0) != cudaSuccess ||
      cudaGraphLaunch(replayed, stream) != cudaSuccess || !right()) {
    return failed("a graph");
  }
  cudaGraphExecDestroy(replayed);
  cudaGraphDestroy(graph);
  ncclCommDestroy(comm);
  std::printf("one rank, directly and in a graph\n");
  return 0;
}
