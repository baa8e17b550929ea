//! The compressed payload of a bzImage.
//!
//! Linux, Documentation/arch/x86/boot.rst: the setup header at 0x1f1 says how many 512-byte
//! sectors of real-mode code come first (`setup_sects`), and, relative to their end, where the
//! compressed kernel is (`payload_offset`, `payload_length`, protocol 2.08). The build appends
//! the unpacked size to the payload as four little-endian bytes where the format does not end in
//! them by itself, which is so for both formats that Debian uses: LZ4 in its legacy frame, and
//! Zstandard.

use std::io::Read;

use super::KernelError;

/// boot.rst, "The Real-Mode Kernel Header": offsets of the fields that matter here.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// `payload_offset` exists from boot protocol 2.08 on.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;
const SECTOR: usize = 512;
/// boot.rst: "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
const DEFAULT_SETUP_SECTS: usize = 4;

/// LZ4 legacy frame: magic, then blocks of a four-byte size and that many compressed bytes, each
/// of which unpacks to at most 8 MiB (lz4_Frame_format.md, "Legacy frame").
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_LEGACY_BLOCK: usize = 8 << 20;
/// RFC 8878, section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// No kernel is larger than this when unpacked; what says so is not a kernel.
const MAX_UNPACKED: usize = 512 << 20;

/// Unpacks the kernel inside `image`.
///
/// # Errors
/// Any lie in the header, any compression but the two above, and a payload that unpacks to
/// another size than it says.
pub fn unpack(image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let payload = payload(image)?;
    let (stream, size) = payload
        .split_last_chunk::<4>()
        .ok_or(KernelError::BzImage("the payload is too short"))?;
    let magic = *stream
        .first_chunk::<4>()
        .ok_or(KernelError::BzImage("the payload is too short"))?;
    if ![LZ4_LEGACY_MAGIC, ZSTD_MAGIC].contains(&magic) {
        return Err(KernelError::Compression(magic));
    }
    let size = u32::from_le_bytes(*size) as usize;
    if size > MAX_UNPACKED {
        return Err(KernelError::BzImage(
            "the payload says it is larger than any kernel",
        ));
    }
    let kernel = if magic == LZ4_LEGACY_MAGIC {
        unpack_lz4_legacy(&stream[magic.len()..], size)?
    } else {
        unpack_zstd(stream, size)?
    };
    if kernel.len() != size {
        return Err(KernelError::BzImage(
            "the payload is not as large as it says",
        ));
    }
    Ok(kernel)
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    if bytes::<2>(image, BOOT_FLAG)? != [0x55, 0xaa] || &bytes::<4>(image, HEADER_MAGIC)? != b"HdrS"
    {
        return Err(KernelError::BzImage("no setup header"));
    }
    if u16::from_le_bytes(bytes(image, PROTOCOL)?) < PROTOCOL_WITH_PAYLOAD {
        return Err(KernelError::BzImage("the boot protocol is older than 2.08"));
    }
    let sectors = match bytes::<1>(image, SETUP_SECTS)?[0] {
        0 => DEFAULT_SETUP_SECTS,
        sectors => usize::from(sectors),
    };
    let offset = u32::from_le_bytes(bytes(image, PAYLOAD_OFFSET)?) as usize;
    let length = u32::from_le_bytes(bytes(image, PAYLOAD_LENGTH)?) as usize;
    let start = (sectors + 1) * SECTOR + offset;
    start
        .checked_add(length)
        .and_then(|end| image.get(start..end))
        .ok_or(KernelError::BzImage("the payload is outside the image"))
}

fn bytes<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], KernelError> {
    image
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(KernelError::BzImage("shorter than its setup header"))
}

fn unpack_lz4_legacy(mut blocks: &[u8], size: usize) -> Result<Vec<u8>, KernelError> {
    let mut kernel = Vec::with_capacity(size);
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        // A new frame may follow a frame; it repeats the magic where a size would be.
        if *length == LZ4_LEGACY_MAGIC {
            blocks = rest;
            continue;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let block = rest
            .get(..length)
            .filter(|block| !block.is_empty())
            .ok_or(KernelError::BzImage("an LZ4 block is cut off"))?;
        let room = size.saturating_sub(kernel.len()).min(LZ4_LEGACY_BLOCK);
        let unpacked = lz4_flex::block::decompress(block, room)
            .map_err(|error| KernelError::Payload(Box::new(error)))?;
        kernel.extend_from_slice(&unpacked);
        blocks = &rest[length..];
    }
    Ok(kernel)
}

fn unpack_zstd(stream: &[u8], size: usize) -> Result<Vec<u8>, KernelError> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(stream)
        .map_err(|error| KernelError::Payload(Box::new(error)))?;
    let mut kernel = Vec::with_capacity(size);
    // One byte more than announced, so that a longer stream shows.
    decoder
        .take(size as u64 + 1)
        .read_to_end(&mut kernel)
        .map_err(|error| KernelError::Payload(Box::new(error)))?;
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: usize = 5 * SECTOR;

    /// A bzImage with one payload at offset 16, and nothing else of a kernel.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; HEADER + 16];
        image[SETUP_SECTS] = 4;
        image[BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
        image[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
        image[PROTOCOL..][..2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..][..4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..][..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn lz4(kernel: &[u8], announced: u32) -> Vec<u8> {
        let mut payload = LZ4_LEGACY_MAGIC.to_vec();
        for block in kernel.chunks(LZ4_LEGACY_BLOCK) {
            let block = lz4_flex::block::compress(block);
            payload.extend_from_slice(&(block.len() as u32).to_le_bytes());
            payload.extend_from_slice(&block);
        }
        payload.extend_from_slice(&announced.to_le_bytes());
        payload
    }

    fn zstd(kernel: &[u8], announced: u32) -> Vec<u8> {
        let mut payload =
            ruzstd::encoding::compress_to_vec(kernel, ruzstd::encoding::CompressionLevel::Fastest);
        payload.extend_from_slice(&announced.to_le_bytes());
        payload
    }

    fn kernel(length: usize) -> Vec<u8> {
        (0..length)
            .map(|i| (i / 1000) as u8 ^ (i % 7) as u8)
            .collect()
    }

    #[test]
    fn an_lz4_payload_of_several_blocks_unpacks() {
        let kernel = kernel(LZ4_LEGACY_BLOCK + 12_345);

        let unpacked = unpack(&image(&lz4(&kernel, kernel.len() as u32))).unwrap();

        assert!(unpacked == kernel);
    }

    #[test]
    fn a_zstd_payload_unpacks() {
        let kernel = kernel(300_000);

        let unpacked = unpack(&image(&zstd(&kernel, kernel.len() as u32))).unwrap();

        assert!(unpacked == kernel);
    }

    #[test]
    fn a_payload_of_another_size_than_it_says_is_refused() {
        let kernel = kernel(50_000);
        for pack in [lz4, zstd] {
            for announced in [0, 1, 49_999, 50_001, u32::MAX] {
                assert!(
                    unpack(&image(&pack(&kernel, announced))).is_err(),
                    "{announced}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_compression_is_named() {
        let error = unpack(&image(b"\x1f\x8b\x08\x00rest and size")).unwrap_err();

        assert!(matches!(
            error,
            KernelError::Compression([0x1f, 0x8b, 0x08, 0x00])
        ));
    }

    #[test]
    fn a_payload_outside_the_image_is_refused() {
        let mut image = image(&zstd(&kernel(5_000), 5_000));
        for (offset, length) in [(16, u32::MAX), (u32::MAX, 16), (u32::MAX, u32::MAX)] {
            image[PAYLOAD_OFFSET..][..4].copy_from_slice(&offset.to_le_bytes());
            image[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());

            assert!(matches!(unpack(&image), Err(KernelError::BzImage(_))));
        }
    }

    #[test]
    fn an_image_cut_anywhere_is_refused() {
        let image = image(&lz4(&kernel(1_000), 1_000));
        for length in 0..image.len() {
            assert!(unpack(&image[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_corrupt_image_never_panics(
            zstandard: bool,
            flips in prop::collection::vec((0usize..6_000, any::<u8>()), 1..20),
        ) {
            let kernel = kernel(20_000);
            let payload = if zstandard { zstd(&kernel, 20_000) } else { lz4(&kernel, 20_000) };
            let mut image = image(&payload);
            let length = image.len();
            for (at, value) in flips {
                image[at % length] = value;
            }

            if let Ok(unpacked) = unpack(&image) {
                prop_assert!(unpacked.len() <= MAX_UNPACKED);
            }
        }
    }
}
