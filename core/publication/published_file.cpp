#include "core/publication/published_file.h"

#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/text.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace format = weight_format;

namespace {

bool is_hash(const std::string& text) {
  return text.size() == format::kHashDigits &&
         text.find_first_not_of("0123456789abcdef") == text.npos;
}

}  // namespace

PublishedFile::Facts PublishedFile::read_head(format::Metadata& in,
                                              const format::Contents& contents,
                                              std::string_view digest) {
  stamp_ = {
      in.number<uint32_t>("stage"), in.number<int64_t>("lineage"), in.number<int64_t>("step")};
  digest_ = in.take("digest");
  const std::string seal = in.take("seal");
  Facts facts;
  for (const std::string& name : tensors_.names()) {
    std::string hash = in.take(std::string(format::kHashPrefix) + name);
    if (!is_hash(hash)) {
      in.fail("tensor \"", printable(name), "\": \"", printable(hash), "\" is not a SHA-256");
    }
    facts[name] = {tensors_.dtype(name), tensors_.shape(name), hash};
    hashes_[name] = std::move(hash);
    tensor_bytes_ += static_cast<int64_t>(tensors_.tensor(name).nbytes());
  }
  in.done();
  const std::string found = format::digest_of(facts, contents);
  if (found != digest_) {
    in.fail("the header was changed: its tensors and ",
            contents.what,
            " have digest ",
            found,
            ", it says ",
            printable(digest_));
  }
  if (seal != format::seal_of(stamp_, digest_, contents)) {
    in.fail("the header was changed: stage ",
            stamp_.stage,
            ", lineage ",
            stamp_.lineage,
            ", step ",
            stamp_.step,
            " and digest do not match their seal");
  }
  if (!digest.empty() && digest != digest_) {
    in.fail("holds the weights with digest ", digest_, ", those with ", digest, " are wanted");
  }
  return facts;
}

void PublishedFile::verify(int threads) const {
  verify(threads, /*release=*/false);
}

void PublishedFile::verify(int threads, bool release) const {
  if (verified_->load()) return;
  const std::vector<std::string>& names = tensors_.names();
  std::vector<uint64_t> sizes;
  sizes.reserve(names.size());
  for (const std::string& name : names) sizes.push_back(tensors_.tensor(name).nbytes());
  const std::vector<size_t> order = format::largest_first(sizes);
  format::run_parallel(threads, order.size(), [&](size_t i) {
    const std::string& name = names[order[i]];
    const at::Tensor tensor = tensors_.tensor(name);
    const std::string found = sha256_hex(
        std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
    check_hash(name, found);
    if (release) tensors_.release(name);
  });
  verified_->store(true);
}

void PublishedFile::check_hash(const std::string& name, const std::string& found) const {
  const std::string& wanted = hashes_.at(name);
  if (found == wanted) return;
  throw DataError(path().string(),
                  ": tensor \"",
                  name,
                  "\": its bytes have SHA-256 ",
                  found,
                  ", the header says ",
                  wanted);
}

std::vector<PublishedFile::Extent> PublishedFile::extents() const {
  std::vector<Extent> out;
  for (const std::string& name : tensors_.names()) {
    const auto [begin, end] = tensors_.range(name);
    out.push_back({name, begin, end});
  }
  return out;
}

void PublishedFile::verify_with(const std::map<std::string, std::string>& found) const {
  for (const auto& [name, unused] : hashes_) {
    const auto hash = found.find(name);
    PRAETOR_CHECK(hash != found.end(), "weights: tensor ", name, " was not hashed");
    check_hash(name, hash->second);
  }
  verified_->store(true);
}

}  // namespace praetor
