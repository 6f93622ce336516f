"""`python -m cnngraph`."""

if __name__ == "__main__":
    try:
        from cnngraph.cli import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    main()
