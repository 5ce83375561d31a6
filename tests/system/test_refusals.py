"""What cannot be saved is answered with a reason, and what is behind it goes on."""

import numpy
import pytest
from files import VAE, batch, photograph, write_latent


def failed(luna, latents, *options, **kwargs):
    """Submits a job that must fail; its record."""
    job = luna.submit(latents, *options, expect="failed", **kwargs)
    info = luna.wait_job(job, "failed")
    assert info["detail"], info
    shown = luna.lunactl("show", job)
    assert info["error"] in shown.out and info["detail"] in shown.out, shown
    return info


def still_works(luna):
    luna.submit_wait(photograph("chelsea"))


def test_unknown_vae_lists_the_choices(luna):
    info = failed(luna, photograph("chelsea"), vae="no_such_vae")
    assert info["error"] == "unknown_vae"
    assert "no_such_vae" in info["detail"] and VAE in info["detail"]
    still_works(luna)


def test_wrong_channel_count(luna):
    file = write_latent(luna.home / "four.latent", numpy.zeros((1, 4, 16, 16), numpy.float32))
    info = failed(luna, file)
    assert info["error"] == "bad_latent"
    assert "4" in info["detail"] and "32" in info["detail"]
    still_works(luna)


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_latents_that_are_not_numbers(luna, value):
    array = batch(2).astype(numpy.float32)
    array[1, 3, 5, 7] = value
    file = write_latent(luna.home / "bad.latent", array)
    done = luna.lunactl("submit", "--latents", file, "--vae", VAE, "--output-dir", luna.output,
                        "--wait")
    assert done.code == 65, done
    if done.out.strip():
        job = luna.expect(done.out.split()[0], "failed")
        assert luna.job(job)["error"] == "bad_latent"
    assert "bad_latent" in done.err or "NaN" in done.err or "Inf" in done.err, done
    still_works(luna)


def test_output_outside_the_roots(luna):
    outside = luna.home / "elsewhere"
    done = luna.lunactl("submit", "--latents", photograph("chelsea"), "--vae", VAE,
                        "--output-dir", outside, "--wait")
    assert done.code != 0 and "root" in done.err, done
    if done.out.strip():
        job = luna.expect(done.out.split()[0], "failed")
        assert luna.job(job)["error"] == "forbidden"
    assert not outside.exists()
    still_works(luna)


def test_dots_in_a_template_do_not_leave_the_roots(luna):
    done = luna.lunactl("submit", "--latents", photograph("chelsea"), "--vae", VAE,
                        "--output-dir", luna.output, "--save-path", "../../up", "--wait")
    assert done.code != 0, done
    if done.out.strip():
        job = luna.expect(done.out.split()[0], "failed")
        assert luna.job(job)["error"] == "forbidden"
    assert not (luna.home / "up").exists()
    still_works(luna)


def test_a_file_where_the_folder_should_be(luna):
    (luna.output).mkdir(exist_ok=True)
    (luna.output / "taken").write_text("a file")
    info = failed(luna, photograph("chelsea"), "--save-path", "taken")
    assert info["error"] == "cant_create"
    assert "taken" in info["detail"]
    still_works(luna)


def test_a_damaged_model(home):
    roots = home.home / "models"
    roots.mkdir()
    (roots / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{\"a\": nonsense}")
    luna = home
    luna.start_broker()
    luna.start_decoder(LUNA_VAE_ROOTS=f"{roots}:{luna.env['LUNA_VAE_ROOTS']}")
    info = failed(luna, photograph("chelsea"), vae="broken")
    assert info["error"] in ("bad_model", "unknown_vae"), info
    still_works(luna)


def test_a_latent_file_that_is_none(luna):
    for content in (b"", b"PNG", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "):
        file = luna.home / "bad.latent"
        file.write_bytes(content)
        done = luna.lunactl("submit", "--latents", file, "--vae", VAE, "--output-dir",
                            luna.output)
        assert done.code in (65, 66), (content, done)
        assert done.err.count("\n") == 1, done
    done = luna.lunactl("submit", "--latents", luna.home / "absent", "--vae", VAE,
                        "--output-dir", luna.output)
    assert done.code == 66, done
