#include "actors/train/publisher.h"

#include <utility>
#include <vector>

#include "actors/rpc/weight_stream.h"
#include "actors/train/weight_caster.h"
#include "core/base/error.h"
#include "core/model/transformer.h"
#include "core/publication/adapter_file.h"

namespace praetor {

namespace {

constexpr int64_t kVersionsKept = 2;

WeightStamp stamp_of(const WeightVersion& version) {
  return {.stage = version.stage, .lineage = version.lineage, .step = version.step};
}

}  // namespace

Publisher::Publisher(const PublishConfig& config,
                     const std::filesystem::path& run_dir,
                     const ServeOptions& serve,
                     WeightCaster* caster)
    : folder_(config.folder_of(run_dir)), caster_(caster), offers_file_(config.via != "stream") {
  if (config.via != "file") server_ = std::make_unique<WeightServer>(serve);
}

Publisher::~Publisher() {
  // Whoever maps a file goes on reading it; nobody will ask for one again.
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Publication Publisher::offer(const WeightVersion& version,
                             const WrittenWeights& written,
                             bool is_base) {
  bytes_ += written.bytes;
  Publication out{.version = version, .bytes = written.bytes};
  out.version.digest = written.digest;
  if (offers_file_) out.file = std::filesystem::absolute(written.file).string();
  if (server_) {
    is_base ? server_->set_base(out.version, written.file)
            : server_->set_file(out.version, written.file);
    out.address = server_->address();
  }
  return out;
}

Publication Publisher::write(const std::filesystem::path& folder,
                             const WeightVersion& version,
                             const Transformer& model,
                             const Visit& visit) {
  WeightFileWriter file(folder, stamp_of(version), model);
  visit(model, [&](std::span<const NamedTensor> tensors) { file.put(tensors); });
  Publication out = offer(version, file.commit(), /*is_base=*/false);
  keep_newest(folder, version.stage, kVersionsKept);
  return out;
}

Publication Publisher::write(const std::filesystem::path& folder,
                             const WeightVersion& version,
                             const LoraAdapter& adapter) {
  const AdapterBase base{.digest = base_->version.digest,
                         .bytes = base_->bytes,
                         .file = base_file_.filename().string()};
  const WrittenWeights written = write_adapter_file(folder, stamp_of(version), adapter, base);
  Publication out = offer(version, written, /*is_base=*/false);
  out.base = {*base_};
  keep_newest(folder, version.stage, kVersionsKept);
  return out;
}

bool Publisher::write_base(uint32_t stage, const Transformer& base, const Visit& visit) {
  if (base_ && base_->version.stage == stage) return false;
  const std::filesystem::path folder = folder_ / "base";
  const WeightVersion version{.stage = stage};
  // A worker may have it mapped that a learner wrote which is no more.
  WeightFileWriter file(folder, stamp_of(version), base, {.keep_equal = true});
  visit(base, [&](std::span<const NamedTensor> tensors) { file.put(tensors); });
  const WrittenWeights written = file.commit();
  base_ = offer(version, written, /*is_base=*/true);
  base_file_ = written.file;
  // Nobody asks for another one any more, whatever its stage.
  std::error_code failure;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator at(folder, failure), end; !failure && at != end;
       at.increment(failure)) {
    if (at->path() != written.file) found.push_back(at->path());
  }
  for (const auto& other : found) std::filesystem::remove(other, failure);
  return true;
}

void Publisher::drop_base() {
  if (!base_) return;
  if (server_) server_->drop_base();
  std::error_code ignored;
  std::filesystem::remove(base_file_, ignored);
  base_.reset();
}

void Publisher::visit_whole(const Transformer& model, const Take& take) {
  take(model.parameters());
}

Publisher::Published Publisher::publish(uint32_t stage,
                                        int64_t lineage,
                                        int64_t step,
                                        const Transformer& policy,
                                        const Companion& companion,
                                        const Visit& visit,
                                        const Adapted& adapted) {
  const auto begin = std::chrono::steady_clock::now();
  bytes_ = 0;
  Published out;
  const WeightVersion version{.stage = stage, .lineage = lineage, .step = step};
  std::vector<Publication*> written;  // in the order in which a receiver needs them
  if (adapted.adapter) {
    if (write_base(stage, *adapted.base, visit)) written.push_back(&*base_);
    out.publication = write(folder_, version, *adapted.adapter);
  } else {
    drop_base();  // of an earlier stage
    out.publication = write(folder_, version, policy, visit);
  }
  const bool base_is_companion = companion.model && companion.model == adapted.base;
  if (companion.model && !base_is_companion &&
      write_companion(version, companion, adapted, visit)) {
    written.push_back(&*companion_);
  }
  written.push_back(&out.publication);
  if (caster_) out.receivers = broadcast(written);
  // Those that these refer to have the numbers of their own broadcasts.
  if (adapted.adapter) out.publication.base = {*base_};
  if (companion.model) {
    if (companion.adapted.adapter) companion_->base = {*base_};
    out.publication.companions = {base_is_companion ? *base_ : *companion_};
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  out.bytes = bytes_;
  return out;
}

/// The finished files, so that training and whoever misses a broadcast do not depend on it.
int64_t Publisher::broadcast(const std::vector<Publication*>& written) {
  std::vector<Publication> files;
  for (const Publication* file : written) files.push_back(*file);
  const WeightCaster::Cast cast = caster_->cast(files);
  for (Publication* file : written) {
    file->epoch = cast.number.epoch;
    file->broadcast = cast.number.number;
  }
  return cast.receivers;
}

bool Publisher::write_companion(const WeightVersion& policy,
                                const Companion& companion,
                                const Adapted& adapted,
                                const Visit& visit) {
  const bool there = companion_ && companion_->version.stage == policy.stage &&
                     companion_->version.step == companion.step && companion.step == 0;
  if (there) {
    if (server_) server_->keep(companion_->version.digest);
    return false;
  }
  const std::filesystem::path folder = folder_ / "companion";
  const WeightVersion version{
      .stage = policy.stage, .lineage = policy.lineage, .step = companion.step};
  if (companion.adapted.adapter) {
    PRAETOR_CHECK(companion.adapted.base == adapted.base, "policy and companion have two bases");
    companion_ = write(folder, version, *companion.adapted.adapter);
  } else {
    companion_ = write(folder, version, *companion.model, visit);
  }
  return true;
}

}  // namespace praetor
